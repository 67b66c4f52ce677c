// Generate showers with a package that `caloforge export ... -o model.pt2` compiled.
//
//   generate model.pt2 SHOWERS CONDITION [CONDITION ...]
//
// The conditions are in the order of the metadata, in MeV and degrees, the same for all showers. Prints what the package is and the
// mean visible energy; exits with 2 where the conditions are outside the range of the training.

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: generate model.pt2 SHOWERS CONDITION [CONDITION ...]\n";
    return 2;
  }
  try {
    c10::InferenceMode inference;
    at::manual_seed(1);
    at::set_num_threads(1);
    torch::inductor::AOTIModelPackageLoader model(argv[1]);
    auto facts = model.get_metadata();
    const int64_t showers = std::atoll(argv[2]);
    const int64_t noise_size = std::atoll(facts["noise_size"].c_str());

    std::vector<float> values;
    for (int k = 3; k < argc; ++k) values.push_back(std::strtof(argv[k], nullptr));
    auto row = at::tensor(values).unsqueeze(0);
    auto conditions = row.expand({showers, row.size(1)}).contiguous();
    auto noise = at::randn({showers, noise_size});

    auto outputs = model.run({noise, conditions});
    auto cells = outputs[0], in_range = outputs[1];
    if (!in_range.all().item<bool>()) {
      std::cerr << "error: the conditions are outside the training's range: " << facts["conditions"] << "\n";
      return 2;
    }
    std::cout << showers << " showers of " << facts["model"] << " in " << facts["detector"] << ", " << cells.size(1)
              << " cells, mean visible energy " << cells.sum(1).mean().item<double>() << " MeV\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}

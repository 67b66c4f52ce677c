// Generate showers with a file that `caloforge export ... -o model.onnx` wrote.
//
//   generate model.onnx SHOWERS CONDITION [CONDITION ...]
//
// The conditions are in the order of the metadata, in MeV and degrees, the same for all showers. Prints what the file is and the
// mean visible energy; exits with 2 where the conditions are outside the range of the training.

#include <cstdlib>
#include <exception>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: generate model.onnx SHOWERS CONDITION [CONDITION ...]\n";
    return 2;
  }
  try {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "caloforge");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    Ort::Session session(env, argv[1], options);
    Ort::AllocatorWithDefaultOptions allocator;
    auto metadata = session.GetModelMetadata();
    auto fact = [&](const char* name) {
      auto text = metadata.LookupCustomMetadataMapAllocated(name, allocator);
      return std::string(text ? text.get() : "");
    };
    const int64_t showers = std::atoll(argv[2]);
    const int64_t noise_size = std::atoll(fact("noise_size").c_str());
    const int64_t n_conditions = argc - 3;

    std::mt19937_64 engine(1);
    std::normal_distribution<float> normal;
    std::vector<float> noise(showers * noise_size), conditions(showers * n_conditions);
    for (auto& number : noise) number = normal(engine);
    for (size_t k = 0; k < conditions.size(); ++k) conditions[k] = std::strtof(argv[3 + k % n_conditions], nullptr);

    const std::vector<int64_t> noise_shape{showers, noise_size}, condition_shape{showers, n_conditions};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> inputs;
    inputs.push_back(Ort::Value::CreateTensor<float>(memory, noise.data(), noise.size(), noise_shape.data(), 2));
    inputs.push_back(
        Ort::Value::CreateTensor<float>(memory, conditions.data(), conditions.size(), condition_shape.data(), 2));
    const char* input_names[] = {"noise", "conditions"};
    const char* output_names[] = {"cells", "in_range"};
    auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names, inputs.data(), 2, output_names, 2);

    const bool* in_range = outputs[1].GetTensorData<bool>();
    for (int64_t i = 0; i < showers; ++i) {
      if (!in_range[i]) {
        std::cerr << "error: the conditions are outside the training's range: " << fact("conditions") << "\n";
        return 2;
      }
    }
    const int64_t n_cells = outputs[0].GetTensorTypeAndShapeInfo().GetShape()[1];
    const float* cells = outputs[0].GetTensorData<float>();
    double sum = 0;
    for (int64_t k = 0; k < showers * n_cells; ++k) sum += cells[k];
    std::cout << showers << " showers of " << fact("model") << " in " << fact("detector") << ", " << n_cells
              << " cells, mean visible energy " << sum / showers << " MeV\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}

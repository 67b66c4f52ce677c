#!/bin/sh
# sh examples/geant4_application/make_page.sh FOLDER: all runs, one after the other, then the page
set -e
export OMP_NUM_THREADS=1
run() { python examples/geant4_application/application.py -o "$RUNS/$1" --particle "$2" --energy "$3" -n "$4" $5; }
RUNS=$1
BIB="--model ild-photon-angled/bib-ae"
FLOW="--model ild-photon-angled/flow-matching"
mkdir -p "$RUNS"
run pi0-full pi0 20-60GeV 400
run pi0-bib-ae pi0 20-60GeV 400 "$BIB"
run electron-full e- 10-100GeV 250
run electron-bib-ae e- 10-100GeV 250 "$BIB"
run photon-full gamma 10-100GeV 250
run photon-bib-ae gamma 10-100GeV 250 "$BIB"
run electron-bib-ae-as-photon e- 10-100GeV 250 "$BIB --electron-depth 0"
run pi0-bib-ae-whole-cells pi0 20-60GeV 400 "$BIB --whole-cells"
run pi0-flow-matching pi0 20-60GeV 80 "$FLOW"
run electron-flow-matching e- 10-100GeV 40 "$FLOW"
run photon-flow-matching gamma 10-100GeV 40 "$FLOW"
python examples/geant4_application/compare.py "$RUNS" -o docs/results/application

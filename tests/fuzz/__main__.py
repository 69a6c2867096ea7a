"""Fuzzing in one command.

    python -m tests.fuzz mutate --calls 20000 --seed 1 --save finds  # spoiled, all verbs
    python -m tests.fuzz replay tests/fuzz/corpus                    # files, all verbs
    python -m tests.fuzz minimise finds/1_17_70.onnx --save small    # a find made small
    python -m tests.fuzz planted --pairs 5000 --seed 1               # verdicts of the checker
    python -m tests.fuzz differential --graphs 5000 --seed 1         # numbers, by oracles

The same seed gives the same cases; the exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path


def main() -> int:
    """Run what the command line names."""
    # Children are forked: no library may have threads by then.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if sys.argv[1:2] == ["planted"]:
        from tests.fuzz import planted_faults

        del sys.argv[1]
        return planted_faults.main()
    if sys.argv[1:2] == ["differential"]:
        from tests.fuzz import differential

        del sys.argv[1]
        return differential.main()
    options = _options()
    warnings.simplefilter("ignore")
    if options.what == "minimise":
        from tests.fuzz.minimise import minimise_file

        return minimise_file(options.file, options.save)
    if options.what == "replay":
        from tests.fuzz.minimise import replay

        wrong = replay(options.folder)
        print("\n".join(wrong) or "nothing is wrong")
        return int(bool(wrong))
    return _mutate(options)


def _mutate(options: argparse.Namespace) -> int:
    from tests.fuzz.mutated_calls import run_calls
    from tests.fuzz.seeds import file_seeds, house_seeds, node_seeds

    seeds = [*house_seeds(), *node_seeds(options.nodes)]
    if not options.house:
        seeds += file_seeds(*map(Path, options.seeds))
    print(f"{len(seeds)} seeds", flush=True)
    figures = run_calls(
        seeds,
        options.calls,
        options.seed,
        start=options.start,
        save=options.save,
        seconds=options.seconds,
        tell=lambda line: print(line, flush=True) if options.verbose else None,
    )
    print(figures.table())
    return int(bool(figures.finds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="what", required=True)
    mutated = parts.add_parser("mutate", help="spoiled models against every verb")
    mutated.add_argument("--calls", type=int, default=2000)
    mutated.add_argument("--seeds", nargs="*", default=[], help="folders of models")
    mutated.add_argument("--house", action="store_true", help="only seeds that are made here")
    mutated.add_argument("--nodes", type=int, default=150, help="ONNX's node tests as seeds")
    mutated.add_argument("--seconds", type=float, default=20.0, help="longer is a hang")
    mutated.add_argument("--save", type=Path, help="folder for finds")
    mutated.add_argument("--verbose", action="store_true", help="print each find")
    mutated.add_argument("--seed", type=int, default=0)
    mutated.add_argument("--start", type=int, default=0, help="number of the first case")
    parts.add_parser("planted", help="faults planted before the checker")
    parts.add_parser("differential", help="valid graphs against other programs")
    small = parts.add_parser("minimise", help="make a find small")
    small.add_argument("file", type=Path, help="a find, with its .json beside it")
    small.add_argument("--save", type=Path, required=True, help="folder of small finds")
    again = parts.add_parser("replay", help="files against every verb")
    again.add_argument("folder", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

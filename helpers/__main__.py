"""The one command line: python -m helpers setup | lab | test | train | bench | ladder | tokens | doctor.

It uses the standard library alone, and imports a subcommand when it is called: where nothing is installed
yet, the first three make up for it, and the doctor can tell what is missing.
"""

import importlib
import sys

COMMANDS = {
    "setup": ("helpers.program.setup", "setup", "make .venv and install the course into it"),
    "lab": ("helpers.program.setup", "lab", "open the course in JupyterLab, set up if need be"),
    "test": ("helpers.program.setup", "test", "run all notebooks and quick tests, set up if need be"),
    "train": ("helpers.program.run", "main", "train a preset on a text, keep the run and record it"),
    "bench": ("helpers.program.bench", "main", "measure the course beside plain programs"),
    "ladder": ("helpers.ladder", "main", "measure what each idea of the course is worth"),
    "tokens": ("helpers.program.tokens", "main", "measure what longer tokens buy"),
    "doctor": ("helpers.program.doctor", "main", "is this machine ready for the course?"),
}


def main(words):
    """Hand the words after the subcommand to it; returns the exit status."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m helpers COMMAND ...  (COMMAND --help tells more)\n")
        for name, (_, _, purpose) in COMMANDS.items():
            print(f"  {name:8} {purpose}")
        return 0
    if words[0] not in COMMANDS:
        print(f"There is no command {words[0]!r}: choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[words[0]]
    return getattr(importlib.import_module(module), function)(words[1:])


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main(sys.argv[1:]))

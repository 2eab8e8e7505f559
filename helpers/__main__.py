"""The one command line: python -m helpers train | bench | ladder | doctor.

It uses the standard library alone, and imports a subcommand when it is called: the doctor can then tell
what is missing where nothing is installed yet.
"""

import importlib
import sys

COMMANDS = {
    "train": ("helpers.program.run", "train a preset on a text, keep the run and record it"),
    "bench": ("helpers.program.bench", "measure the course beside plain programs"),
    "ladder": ("helpers.ladder", "measure what each idea of the course is worth"),
    "doctor": ("helpers.program.doctor", "is this machine ready for the course?"),
}


def main(words):
    """Hand the words after the subcommand to it; returns the exit status."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m helpers COMMAND ...  (COMMAND --help tells more)\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:8} {purpose}")
        return 0
    if words[0] not in COMMANDS:
        print(f"There is no command {words[0]!r}: choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    module, _ = COMMANDS[words[0]]
    return importlib.import_module(module).main(words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

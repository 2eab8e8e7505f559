"""The programs around the GPT: building a preset, keeping a run and its record, measuring, looking after."""

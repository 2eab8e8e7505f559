"""The pictures and panels of the notebooks: what all share, and one file for each notebook."""

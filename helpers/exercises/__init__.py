"""The exercises of the notebooks, and the check that says what is right or wrong in an answer."""

"""The search for a better configuration: what may vary, one training of it, and the study over all of them."""

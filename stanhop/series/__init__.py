"""Series: reading them strictly, knowing their grid of times, cutting them into windows, scaling them."""

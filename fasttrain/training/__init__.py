"""Training: the loop and the parts it is assembled from."""

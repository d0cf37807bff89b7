"""fasttrain trains image classifiers on CIFAR-10-class data as fast as the hardware allows."""

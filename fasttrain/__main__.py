"""`python -m fasttrain`, and what `accelerate launch -m fasttrain` runs."""

from fasttrain.cli import main

main()

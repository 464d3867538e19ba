"""What training, evaluation and pictures share: checkpoints, the models there are, held-out images, random numbers."""

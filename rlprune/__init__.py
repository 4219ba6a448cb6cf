"""Reinforcement-learning pruning for CNNs: each image runs through as much of the network as it needs."""

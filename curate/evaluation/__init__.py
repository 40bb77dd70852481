"""Measures of frozen features: k-NN, linear classifiers, retrieval, copy detection; drawings of what a model sees."""

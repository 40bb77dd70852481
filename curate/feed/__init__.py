"""The feed of the trainer: from shards to batches of crops, a pure function of (seed, samples consumed)."""

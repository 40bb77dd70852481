"""Images of a run as a data set that other tools read: copies or links, with their provenance. Sources stay untouched.

Bytes are those of the source, never encoded anew, and checked against the SHA-256 of the first reading. An interrupted
writing goes on where it stopped, when the same is asked for again: what a shard or folder is to hold follows from the
tables alone, and each file appears complete or not at all.
"""

"""Single pictures: decoding, judging, edits that plant copies, and perceptual hashes."""

"""The pages of the reference, written from the code that they tell of: `make reference`.

The pages are committed, so that they can be read without a build; a test compares them with what is written here.
"""

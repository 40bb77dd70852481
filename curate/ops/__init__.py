"""Pure functions on arrays and pictures: no files, no global state, seeds from arguments only.

A room (images, search, copies, clusters, selection) holds the mathematics of the stages of the same name, and imports
no other room but images; what several rooms need stands here beside them. Importing any of it loads no torch.
"""

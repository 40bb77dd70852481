"""What must not be in a pool at all: listed pictures, unwanted looks, faces, and rules over what was measured."""

"""The documents, held to the code that they tell of."""

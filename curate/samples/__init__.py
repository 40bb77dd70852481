"""The bundled pictures and their attribution, the generator of a crawl-like pool, and the check of a run against it."""

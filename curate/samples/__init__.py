"""The bundled pictures, their attribution, and the generator of a crawl-like pool."""

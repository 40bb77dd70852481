"""Dask clusters: started, watched, and given tasks. The only package that knows Dask."""

"""Stages that train on the result and measure what came out."""

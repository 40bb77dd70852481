"""Backbones in the formats of other libraries; each file is checked in its own library before it is published."""

"""Roles of images as arrays hold them: the index into `tables.ROLES`."""

from curate.tables import ROLES

POOL, CURATED, HELDOUT = (ROLES.index(role) for role in ("pool", "curated", "heldout"))

"""The bundled DINOv2 trainer; its only tie to curation is the schema of the shards."""

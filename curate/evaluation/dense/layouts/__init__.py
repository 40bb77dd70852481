"""Folders of public sets as they are unpacked, a file each: where their pictures and truths lie."""

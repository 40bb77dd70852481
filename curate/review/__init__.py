"""`curate review`: groups, pairs and images of a run that a person should see, on a page that takes decisions.

`queues.py` finds what there is to see, as numbers; `doubtful.py` finds the pairs about a threshold. `items.py` reads
the rows of one page of them, `originals.py` the pictures. `marks.py` writes the decisions. The page itself is
`page.html`, `review.css` and `review.js`: `server.py` serves it on this machine alone, `export.py` writes it as files.
"""

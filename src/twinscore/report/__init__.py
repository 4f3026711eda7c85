"""Reports: figures and one self-contained page, drawn from a run folder alone.

`transition`, `regularity` and `duplicates` draw the figures of their studies, `page` writes the
page. A new study adds a module with the same two functions, `figures` and `content`, and a line to
the table in `page`.
"""

"""The evidence chain: a run folder becomes a record, records become tables, figures and a page."""

"""The HTML report: what it reads, the words, tables and figures of each section. No score is computed here."""

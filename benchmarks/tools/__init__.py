"""Tools: speed, proofs, certificates, panels, pages, films."""

"""From data towards noise: encoding, editing, interpolating, judging."""

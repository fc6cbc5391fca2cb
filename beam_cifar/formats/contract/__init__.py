"""What a format is: the types that formats, planning and jobs share, `Source`, and `Sink`.

Planning and jobs import from here; so does whoever writes a format.
"""

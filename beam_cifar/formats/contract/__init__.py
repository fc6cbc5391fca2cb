"""What a format is: `Source`, `Sink`, and the types that formats, planning and jobs share.

Planning, jobs and format implementations import from here.
"""

"""Row selection: by label, and by XPath expressions over items.

Other packages import `selection`; `xpath` evaluates expressions, and `xpath_static` analyses their text.
"""

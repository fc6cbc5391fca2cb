"""Images as bytes: block-wise PNG encoding, and the drawing of sample images."""

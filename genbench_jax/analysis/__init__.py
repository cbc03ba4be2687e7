"""What the rows say together: do the metrics predict recognition?"""

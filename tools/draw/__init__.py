"""How nbs/draw.html is made: a page to draw on, which shows what two networks say."""

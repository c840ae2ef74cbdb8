"""Model cards for the Hugging Face Hub: Markdown with YAML front matter, from records."""

from mobilezoo.report.model_card.contents import CardContents
from mobilezoo.report.model_card.page import card_text

__all__ = ["CardContents", "card_text"]

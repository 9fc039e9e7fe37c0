"""What a person looks at: report.html, report.png and the model card."""

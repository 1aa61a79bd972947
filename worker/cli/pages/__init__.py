"""Pages: documents laid out for people, one function a page. What is shown is in the document."""

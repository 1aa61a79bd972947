"""Projects, their versions and lines of work, and how the head of a line moves (`heads`)."""

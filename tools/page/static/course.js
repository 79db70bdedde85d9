// A closed <details> would be missing on paper, and so would light text on white.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  document.documentElement.dataset.theme = "light";
});

// What a button is called is what stands on it.
addEventListener("DOMContentLoaded", () => {
  document
    .querySelectorAll("summary[aria-label], .search-button-field[aria-label]")
    .forEach((button) => button.removeAttribute("aria-label"));
});

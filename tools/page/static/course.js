// A closed <details> would be missing on paper, and light text would not be seen.
let theme;
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => (document.documentElement.dataset.theme = theme));

// What a button is called is what stands on it.
addEventListener("DOMContentLoaded", () => {
  const named = "summary[aria-label], .search-button-field[aria-label]";
  document.querySelectorAll(named).forEach((button) => button.removeAttribute("aria-label"));
});

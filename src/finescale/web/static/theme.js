// Runs before the first paint, so that nothing flashes: the remembered choice, else the system's, also when that changes.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let theme = dark.matches ? "dark" : "light";
    try {
      theme = localStorage.getItem("finescale-theme") || theme;
    } catch {
      // no storage: the system's choice holds
    }
    document.documentElement.dataset.theme = theme;
  };
  apply();
  dark.addEventListener("change", apply);
})();

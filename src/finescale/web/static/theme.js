// Runs before the first paint, so that a remembered choice does not flash.
(() => {
  try {
    const theme = localStorage.getItem("finescale-theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // no storage: the system's choice holds
  }
})();

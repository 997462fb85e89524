// What the browser keeps of the settings. It may be told to keep nothing; then they last as long as the page.

export function kept(name: string): string | null {
  try {
    return localStorage.getItem(`ringmain.${name}`);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`ringmain.${name}`, value);
  } catch {
    // Only this page knows it then.
  }
}

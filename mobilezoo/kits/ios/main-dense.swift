import Classify
import CoreImage
import Foundation
import ImageIO
import UniformTypeIdentifiers

let paths = CommandLine.arguments.dropFirst()
if paths.isEmpty {
    FileHandle.standardError.write(Data("usage: swift run read-images IMAGE ...\n".utf8))
    exit(2)
}
let finder = try await Finder()
if finder.model.labels.isEmpty {
    FileHandle.standardError.write(Data("no names of classes in model.json: they are shown by their number\n".utf8))
}
var code: Int32 = 0
for path in paths {
    do {
        let url = URL(fileURLWithPath: path)
        let found = try finder.find(url)
        let name = url.deletingPathExtension().lastPathComponent + ".found.png"
        guard let image = CIImage(contentsOf: url, options: [.applyOrientationProperty: true]),
              let upright = CIContext().createCGImage(image, from: image.extent),
              let picture = finder.picture(found, over: upright),
              let file = CGImageDestinationCreateWithURL(
                  URL(fileURLWithPath: name) as CFURL, UTType.png.identifier as CFString, 1, nil
              )
        else { throw CocoaError(.fileWriteUnknown) }
        CGImageDestinationAddImage(file, picture, nil)
        guard CGImageDestinationFinalize(file) else { throw CocoaError(.fileWriteUnknown) }
        print("\(path) -> \(name)")
        for line in finder.lines(found) { print(line) }
    } catch {
        FileHandle.standardError.write(Data("\(path): \(error)\n".utf8))
        code = 2
    }
}
exit(code)

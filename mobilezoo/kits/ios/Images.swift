import CoreGraphics
import Foundation
import ImageIO

/// An image file as RGB or grey: upright by EXIF, on white where it is transparent, its color profile ignored.
func readImage(_ url: URL, channels: Int) throws -> Pixels {
    guard let source = CGImageSourceCreateWithURL(url as CFURL, nil),
          let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
    else { throw Fault(description: "\(url.lastPathComponent): not an image that can be read") }
    let told = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
    let turn = (told?[kCGImagePropertyOrientation] as? NSNumber)?.intValue ?? 1
    return try upright(pixels(of: image, channels: channels), turn)
}

/// The pixels of an upright image, such as a frame of the camera.
func pixels(of image: CGImage, channels: Int) throws -> Pixels {
    let (w, h) = (image.width, image.height)
    // In the image's own color space nothing is converted.
    let own = image.colorSpace.flatMap { $0.model == .rgb ? $0 : nil }
    let space = own ?? CGColorSpace(name: CGColorSpace.sRGB)!
    var rgba = [UInt8](repeating: 255, count: 4 * w * h)
    let drawn = rgba.withUnsafeMutableBytes { memory -> Bool in
        let info = CGImageAlphaInfo.premultipliedLast.rawValue
        guard let context = CGContext(
            data: memory.baseAddress, width: w, height: h, bitsPerComponent: 8, bytesPerRow: 4 * w, space: space,
            bitmapInfo: info
        ) else { return false }
        context.draw(image, in: CGRect(x: 0, y: 0, width: w, height: h))  // over the white that is there
        return true
    }
    guard drawn else { throw Fault(description: "pixels of a kind that cannot be drawn") }
    var bytes = [UInt8](repeating: 0, count: w * h * channels)
    for i in 0..<(w * h) {
        if channels == 1 {
            let (r, g, b) = (Int(rgba[4 * i]), Int(rgba[4 * i + 1]), Int(rgba[4 * i + 2]))
            bytes[i] = UInt8((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16)  // ITU-R 601 luma, as Pillow's
        } else {
            for c in 0..<3 { bytes[3 * i + c] = rgba[4 * i + c] }
        }
    }
    return Pixels(width: w, height: h, channels: channels, bytes: bytes)
}

/// Mirrors and turns an image by its EXIF orientation.
func upright(_ image: Pixels, _ turn: Int) -> Pixels {
    guard (2...8).contains(turn) else { return image }
    let swapped = turn >= 5
    let (w, h, c) = (image.width, image.height, image.channels)
    let (outW, outH) = swapped ? (h, w) : (w, h)
    var bytes = [UInt8](repeating: 0, count: image.bytes.count)
    for y in 0..<outH {
        for x in 0..<outW {
            var (fromX, fromY) = swapped ? (y, x) : (x, y)
            if [2, 3, 7, 8].contains(turn) { fromX = w - 1 - fromX }
            if [3, 4, 6, 7].contains(turn) { fromY = h - 1 - fromY }
            for channel in 0..<c { bytes[(y * outW + x) * c + channel] = image.bytes[(fromY * w + fromX) * c + channel] }
        }
    }
    return Pixels(width: outW, height: outH, channels: c, bytes: bytes)
}
